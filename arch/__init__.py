"""What a design is: number formats, PE specs, machines, programs, cost tables."""
