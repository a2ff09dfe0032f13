"""What is secret in the environment must not stand in what others may read."""

import os
import re

SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL|AUTH", re.IGNORECASE)
SHORTEST = 6
"""Values of fewer characters are no secrets, and would blot out words."""

USER_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")
HIDDEN = "***"


def without_secrets(text: str) -> str:
    """Return a text without user and password in URLs, and without the values of this process's variables that are secret by their name."""
    values = {value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return USER_IN_URL.sub(f"{HIDDEN}@", text)
