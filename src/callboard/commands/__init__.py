"""Defines the subcommands of `callboard`, one file each: its arguments and one call.

Takes the command line, gives printed text and an exit status; imports other rooms only when a command runs.
"""
