"""One module for each role, with `start(brief, stop)`; a child imports its own alone.

They translate between the supervisor's words (a brief, an exit status) and the functions of the packages that do the work.
"""
