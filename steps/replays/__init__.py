"""Parts of a step's work done again, to be compared with what its run recorded: one file a step that can."""
