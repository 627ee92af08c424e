"""What trainings share: the loop, the data, the losses."""
