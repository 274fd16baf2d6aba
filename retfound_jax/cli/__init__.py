"""The front door (`main`) and one thin file per verb: parsing and printing only, the work is done in the rooms."""
