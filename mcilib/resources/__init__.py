"""What state the machine is in: whether somebody is there who may be recorded."""
