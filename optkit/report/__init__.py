"""Results for people: table, page, pictures, explanations."""
