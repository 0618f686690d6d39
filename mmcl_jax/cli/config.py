"""Lists the keys of a config, with their values and meanings.

Words after the flags choose keys with one of them in their name or meaning.

Examples:
  mmcl-config --config=demo:method=ridge
  mmcl-config --config=folders rate epochs
"""

import sys

from mmcl_jax.cli import command_line
from mmcl_jax.errors import ConfigError

_CONFIG = command_line.define_config("Config whose keys are listed.")


def main(argv: list[str]) -> None:
    """Prints the keys; bad input ends with exit code 2."""
    # imported late, like all that loads JAX in programs: --help need not wait for it
    from mmcl_jax.cli import reference

    try:
        config = command_line.required(_CONFIG.value, "demo")
        found = reference.of_config(config, argv[1:])
        if not found:
            raise ConfigError(f"no key is about {', '.join(argv[1:])}")
    except ConfigError as error:
        sys.exit(command_line.complain(error))
    print(found)


def cli() -> None:
    """Runs the program."""
    command_line.run(main, with_config=True)


if __name__ == "__main__":
    cli()
