"""What happens on the machine: sources that turn the system's input into events."""
