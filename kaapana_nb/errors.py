"""The error tree: what went wrong, and what to do about it.

::

    KaapanaNbError            every error of this package; has .problem and .remedy
    ├── UsageError            a command or call was given something it does not take (exit code 2)
    ├── ContractError         the environment or directory layout is not the platform's
    ├── BatchError            a batch or a batch element cannot be used
    │   └── DicomError        a DICOM file or series cannot be used
    ├── NotebookError         a notebook is no operator, or a cell failed
    ├── ParameterError        a parameter's name or value is not allowed (exit code 2)
    ├── AlgorithmError        an algorithm returned or asked for something that has no loader or writer
    ├── PrivacyError          something that identifies a patient, or a secret, would leave
    ├── BuildError            an image cannot be built
    ├── RegistryError         a container registry refused or could not be reached
    ├── ParityError           notebook and container do not give the same results
    ├── StoreError            an object store refused or could not be reached
    └── PlatformError         a platform service refused or could not be reached

Problem and remedy are the two ``args`` of the exception, so every error survives
pickling on its way out of a worker process. Only the command line turns errors
into exit codes.
"""

from __future__ import annotations


class KaapanaNbError(Exception):
    """An error with a problem (quoting what was seen) and a remedy (a command or an edit)."""

    exit_code = 1

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)

    @property
    def problem(self) -> str:
        return str(self.args[0])

    @property
    def remedy(self) -> str:
        return str(self.args[1])

    def __str__(self) -> str:
        return f"{self.problem} Remedy: {self.remedy}"


class UsageError(KaapanaNbError):
    """A command or call was given something it does not take."""

    exit_code = 2


class ContractError(KaapanaNbError):
    """The environment or directory layout is not the one the platform promises."""


class BatchError(KaapanaNbError):
    """A batch or a batch element cannot be used."""


class DicomError(BatchError):
    """A DICOM file or series cannot be used."""


class NotebookError(KaapanaNbError):
    """A notebook is no operator, or one of its cells failed."""


class ParameterError(KaapanaNbError):
    """A parameter's name or value is not allowed."""

    exit_code = 2


class AlgorithmError(KaapanaNbError):
    """An algorithm's types have no loader or writer, or its result is not what it declared."""


class PrivacyError(KaapanaNbError):
    """Something that identifies a patient, or a secret, would leave."""


class BuildError(KaapanaNbError):
    """An image cannot be built."""


class RegistryError(KaapanaNbError):
    """A container registry refused or could not be reached."""


class ParityError(KaapanaNbError):
    """Notebook and container do not give the same results."""


class StoreError(KaapanaNbError):
    """An object store refused or could not be reached."""


class PlatformError(KaapanaNbError):
    """A platform service refused or could not be reached."""
