"""Training of a network by a method: prepared cases, the loop, the trainers."""
