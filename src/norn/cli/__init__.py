"""The command line: talks HTTP to a server. One module per group of commands, each imported only when it is called."""
