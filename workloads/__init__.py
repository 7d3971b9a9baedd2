"""What a design runs: models, quantisers, the reference transformer, the mapping onto a machine."""
