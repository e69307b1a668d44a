"""What makes the pages of docs/ and the files that ship with xtalk: a folder a subject, a module a page."""
