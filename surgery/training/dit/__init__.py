"""`surgery train`: a config file -> a trained `surgery.dit.DiT` in a pipeline folder, by the one trainer."""
