"""The admin commands, one a module: HELP, EXAMPLE, configure(parser) and run(arguments) -> exit status."""
