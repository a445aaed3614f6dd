"""The course's secret: what makes hidden inputs impossible to guess."""

import os
from pathlib import Path

from sslcourse.errors import InputError

PRACTICE_SECRET = "practice"
SECRET_VARIABLE = "SSLCOURSE_SECRET"


def course_secret(mode: str = "practice") -> str:
    """The secret behind the hidden inputs: from SSLCOURSE_SECRET, or the file that SSLCOURSE_SECRET_FILE names.

    Raises:
        InputError: `mode="graded"` without one, because then every student could draw the inputs.
    """
    file = os.environ.get(f"{SECRET_VARIABLE}_FILE")
    if file and not Path(file).is_file():
        raise InputError(f"{SECRET_VARIABLE}_FILE names {file}, which is not a file.")
    secret = Path(file).read_text().strip() if file else os.environ.get(SECRET_VARIABLE, "").strip()
    if secret and secret != PRACTICE_SECRET:
        return secret
    if mode == "graded":
        raise InputError(
            f"grading for marks needs a course secret: put one in {SECRET_VARIABLE}, or in a file outside the repo "
            f"that {SECRET_VARIABLE}_FILE names (python -c 'import secrets; print(secrets.token_hex())' makes one)."
        )
    return PRACTICE_SECRET
