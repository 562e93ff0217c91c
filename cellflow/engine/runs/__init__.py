"""What a run is, holds and has come to; everything that commands need to know of one."""
