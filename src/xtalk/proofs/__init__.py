"""Provers: they search for certificates, which the independent checker `xtalk_check` has to accept."""
