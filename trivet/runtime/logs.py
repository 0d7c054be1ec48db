"""Where the runtime logs."""

import logging
from typing import Final

logger: Final = logging.getLogger("trivet")
