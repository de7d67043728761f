"""Load on served models: scenarios, clients, the search for a configuration."""
