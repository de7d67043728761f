"""Takes the recipes into the package, as `optkit/recipe/shipped`: they lie at the top level, and there alone."""

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = "optkit.recipe.shipped"


class BuildWithRecipes(build_py):
    """Builds the package with the recipes in it; an editable installation finds them where they lie."""

    def finalize_options(self) -> None:
        """Add the folder of the recipes as one more package."""
        super().finalize_options()
        if not self.editable_mode:
            self.packages = [*self.packages, SHIPPED]
            self.package_dir = {**(self.package_dir or {}), SHIPPED: "recipes"}


setup(cmdclass={"build_py": BuildWithRecipes})
