"""One module for each step: a folder on disk that appears whole, is found again by its key, and is made anew when what it
depends on changes.

A recipe's folder holds its checkpoint, and in folders of their own `teacher/` (logits on the training features), `graph/`,
`ranges/`, `engines/`, `plans/` and `served/` (see `optkit.core.step_cache`). The code that a step depends on is its module
with everything that it imports, and the modules of the recipe's techniques where it asks them for something (see
`optkit.core.code_version` and `Recipe.modules`).
"""
