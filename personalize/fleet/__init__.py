"""The fleet: the recipe for each subject of a catalogue, on as many workers as there are. Ray schedules and retries."""
