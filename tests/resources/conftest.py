"""No test here fails because the machine is busy."""

from __future__ import annotations

from patience import time_to_spare as time_to_spare
