"""Adapters in, one adapter out: a merge = space x method x weights x rank."""
