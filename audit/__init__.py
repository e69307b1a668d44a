"""What the checker and its tests are worth: mutants, fuzzing, the number of lines to read."""
