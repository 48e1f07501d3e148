"""The one trainer: a loop that knows neither teacher nor surgery, and healing, which hands it both."""
