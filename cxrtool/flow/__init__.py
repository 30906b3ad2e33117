"""What passes between commands: folders, runs and their folds, chains of preprocessing and the parts these need."""
