"""Table of sources + recipe -> what is to be rendered: splits by patient, how many variants of which source, names and seeds."""

from common.errors import UserError


class PlanError(UserError):
    """The sources can't make the set that the recipe asks for; the message names the class and the fix."""
