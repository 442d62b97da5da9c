"""Student architectures, losses, training and encoding. Never ray."""
