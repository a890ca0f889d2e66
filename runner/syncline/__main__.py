from syncline.cli import main

main(prog_name="syncline")
