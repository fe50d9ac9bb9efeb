"""Ray itself: starting and joining it, its nodes, its autoscaler."""
