"""The tables and figures of the pages on proofs, each between its marks: certificates and their cost."""
