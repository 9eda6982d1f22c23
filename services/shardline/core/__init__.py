"""Values and rules. Standard library and numpy only; imported by everything, imports nothing of ours."""
