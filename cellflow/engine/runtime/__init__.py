"""What a command runs on: the machine, its time, signals, logs, and work in stages."""
