"""What the platform promises an operator's container, as data and pure functions.

Source: Kaapana's own sources at tags 0.1.3 and 0.6.0 and its Processing Dev-Guide.
"""

from kaapana_nb.contract.context import RunContext
from kaapana_nb.contract.exitcodes import FAILED, OK, SKIP, USAGE
from kaapana_nb.contract.names import slug
from kaapana_nb.contract.profiles import PROFILES, Profile, profile

__all__ = ["FAILED", "OK", "PROFILES", "SKIP", "USAGE", "Profile", "RunContext", "profile", "slug"]
