"""Foundations that every other room stands on: errors, settings, files, finished steps, what the machine has."""
