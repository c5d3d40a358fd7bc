"""What an accelerator needs in somebody else's design: register maps, build descriptions, drivers."""
