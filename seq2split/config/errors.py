"""The error that tells of everything that is wrong with a configuration."""


class ConfigError(ValueError):
    """A configuration is wrong: every problem found, one a line.

    Attributes:
        problems: The lines; each names where the value was given, its key, and how to mend it.

    Example:
        >>> ConfigError("run.toml: first", "run.toml: second").problems
        ('run.toml: first', 'run.toml: second')
    """

    def __init__(self, *problems: str):
        super().__init__("\n".join(problems))
        self.problems = problems
