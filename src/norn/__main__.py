from norn.cli.main import run

run()
