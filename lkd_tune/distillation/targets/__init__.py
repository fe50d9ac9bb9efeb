"""What the losses need of the teacher: computed live, or stored once and read back."""
