"""From a model's output to what is minimised: distortion, rate and penalty of every row."""
