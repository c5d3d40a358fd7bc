"""What an instruction does, an operation in one place: its rules, what it touches, what it counts, what it moves."""
