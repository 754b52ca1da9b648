"""Takes a while to import, like most of what is worth calling."""

import asyncio
import decimal
import email.mime.multipart
import http.client
import logging.config
import multiprocessing
import os
import sqlite3
import ssl
import unittest.mock
import xml.dom.minidom
import xmlrpc.client

import hatchery

table = []
__all__ = ["lookup", "pid"]


@hatchery.on_preload
def load_table():
    """Stand for a model: loaded once, shared by all forked workers."""
    table.extend(str(number) for number in range(200_000))


def lookup(number):
    """Find an entry."""
    return table[number]


def pid():
    """Say which process this is."""
    return os.getpid()


modules = (
    asyncio,
    decimal,
    email.mime.multipart,
    http.client,
    logging.config,
    multiprocessing,
    sqlite3,
    ssl,
    unittest.mock,
    xml.dom.minidom,
    xmlrpc.client,
)
