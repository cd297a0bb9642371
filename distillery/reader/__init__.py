"""Reading what the pipeline made: traces side by side, removed rows with their evidence, and students' samples."""
