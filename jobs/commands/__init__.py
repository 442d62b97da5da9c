"""The commands of `prep`: options in, messages out."""
