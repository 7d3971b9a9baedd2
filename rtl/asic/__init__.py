"""Area, delay and energy of our RTL on real standard cells."""
