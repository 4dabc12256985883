"""Tools around a lab: the command line, the doctor, what tests a domain or a store. Nothing of a lab imports them."""
