"""Posteriors q(z|x) and priors p(z)."""
